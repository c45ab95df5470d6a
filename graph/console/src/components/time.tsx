import { Store, useStore } from "../store";

/** The present moment, by which all times on a page become older together. */
const now = new Store(Date.now());
setInterval(() => now.set(Date.now()), 10_000);

const UNITS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["year", 31_536_000],
  ["month", 2_592_000],
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** How long ago a moment was, such as `3 min. ago`; the moment itself is its title. */
export function Time(props: { at: string | null | undefined }) {
  const present = useStore(now);
  if (!props.at) return <>–</>;
  const date = new Date(props.at);
  const seconds = Math.round((date.getTime() - Math.max(present, now.get())) / 1000);
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? ["second", 1];
  const text = Math.abs(seconds) < 10 ? "now" : relative.format(Math.trunc(seconds / size), unit);
  return (
    <time dateTime={props.at} title={absolute.format(date)}>
      {text}
    </time>
  );
}
