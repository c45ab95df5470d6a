const count = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

const dollars = new Intl.NumberFormat("en", { style: "currency", currency: "USD" });
const fraction = new Intl.NumberFormat("en", { style: "currency", currency: "USD", maximumSignificantDigits: 2 });
const exact = new Intl.NumberFormat("en", { style: "currency", currency: "USD", maximumFractionDigits: 9 });

/** A cost in US dollars, which the API sends as a string: to the cent, and below one cent two digits. */
export function formatCost(cost: string): string {
  const value = Number(cost);
  return (value !== 0 && Math.abs(value) < 0.01 ? fraction : dollars).format(value);
}

/** A cost in US dollars that is not rounded, for the axis of a chart. */
export function formatExactCost(cost: number): string {
  return exact.format(cost);
}

/** A number in full, such as `12,345`. */
export function formatCount(value: number | string): string {
  return count.format(Number(value));
}

/** A number of things in words, such as `1 task` or `12 tasks`. */
export function counted(value: number | string, one: string, many = `${one}s`): string {
  return `${formatCount(value)} ${Number(value) === 1 ? one : many}`;
}

/** A large number in short, such as `12.3K`. */
export function formatCompact(value: number | string): string {
  return compact.format(Number(value));
}

/** A share of a whole as a bar; `label` says of what. */
export function Progress(props: { value: number; of: number; label: string }) {
  return (
    <span class="progress">
      <progress value={props.value} max={props.of || 1} aria-label={props.label} />
      <span>
        {formatCount(props.value)}/{formatCount(props.of)}
      </span>
    </span>
  );
}
