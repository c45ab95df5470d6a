/** The periods of the page of usage. Days are in UTC, as the server sums them. */

const HOUR = 3_600_000;

/** A period up to now, in parts of an hour or a day. */
export type Period = {
  title: string;
  unit: "HOUR" | "DAY";
  count: number;
  /** When it begins. */
  from: (now: Date) => Date;
  /** When each of its parts begins. */
  parts: (from: Date) => Date[];
  /** How a part is named, such as `2 Mar`. */
  label: (part: Date) => string;
};

function period(title: string, unit: Period["unit"], count: number): Period {
  const size = unit === "HOUR" ? HOUR : 24 * HOUR;
  const words = new Intl.DateTimeFormat("en-GB", {
    ...(unit === "HOUR" ? { hour: "2-digit", minute: "2-digit" } : { day: "numeric", month: "short" }),
    timeZone: "UTC",
  });
  return {
    title,
    unit,
    count,
    from: (now) => new Date((Math.floor(now.getTime() / size) - count + 1) * size),
    parts: (from) => Array.from({ length: count }, (_, index) => new Date(from.getTime() + index * size)),
    label: (part) => words.format(part),
  };
}

export const periods: Record<string, Period> = {
  day: period("24 hours", "HOUR", 24),
  week: period("7 days", "DAY", 7),
  month: period("30 days", "DAY", 30),
  quarter: period("90 days", "DAY", 90),
};
