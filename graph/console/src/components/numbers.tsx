const count = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** A cost: the API sends decimals as strings, in the currency of the models' prices. */
export function formatCost(cost: string): string {
  const value = Number(cost);
  if (value === 0) return "0";
  const maximumFractionDigits = Math.abs(value) < 0.1 ? 4 : 2;
  return value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits });
}

/** A number in full, such as `12,345`. */
export function formatCount(value: number | string): string {
  return count.format(Number(value));
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
