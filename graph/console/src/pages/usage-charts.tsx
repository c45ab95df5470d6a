import { BarChart, type Series, ShareBar } from "../components/chart";
import { counted, formatCompact, formatCost, formatCount, formatExactCost } from "../components/numbers";
import { Table } from "../components/table";
import type { UsageQuery, UsageSumsFragment } from "../generated/operations";
import type { Period } from "./usage-periods";

/** What the charts show of a sum. */
export type Measure = {
  title: string;
  series: readonly Series[];
  values: (sums: UsageSumsFragment) => number[];
  /** How a value of the axis is written. */
  format: (value: number) => string;
};

export const measures: Record<string, Measure> = {
  cost: {
    title: "Cost",
    series: [{ title: "Cost", fill: "plain" }],
    values: ({ cost }) => [Number(cost)],
    format: formatExactCost,
  },
  tokens: {
    title: "Tokens",
    series: [
      { title: "Input", fill: "plain" },
      { title: "Input from a cache", fill: "striped" },
      { title: "Output", fill: "dotted" },
    ],
    values: ({ inputTokens, cachedInputTokens, outputTokens }) => [
      Number(inputTokens) - Number(cachedInputTokens),
      Number(cachedInputTokens),
      Number(outputTokens),
    ],
    format: formatCompact,
  },
};

const NOTHING: UsageSumsFragment = {
  cost: "0",
  inputTokens: "0",
  cachedInputTokens: "0",
  outputTokens: "0",
  calls: "0",
};

/** The sums of each part of a period, as a chart and as a table. */
export function Times(props: { period: Period; from: Date; rows: UsageQuery["times"]; measure: Measure }) {
  const { period, measure } = props;
  const found = new Map(props.rows.map((row) => [new Date(row.time ?? 0).getTime(), row]));
  const rows = period.parts(props.from).map((part) => ({
    label: period.label(part),
    key: part.toISOString(),
    sums: found.get(part.getTime()) ?? NOTHING,
  }));
  const unit = period.unit === "HOUR" ? "hour" : "day";
  const title = `${measure.title} by ${unit}`;
  const used = rows.filter(({ sums }) => sums !== NOTHING);
  return (
    <section class="panel">
      <h2>
        {title} <span class="note">({unit}s in UTC)</span>
      </h2>
      <BarChart
        title={`${title} in the last ${period.title}; the numbers are in the table below.`}
        series={measure.series}
        format={measure.format}
        bars={rows.map(({ key, label, sums }) => ({ key, label, values: measure.values(sums), hint: hintOf(label, sums) }))}
      />
      <details>
        <summary>As a table</summary>
        <Table caption={title} heads={[period.unit === "HOUR" ? "Hour" : "Day", "#Cost", "#Input", "#From a cache", "#Output", "#Calls"]}>
          {used.map(({ key, label, sums }) => (
            <tr key={key}>
              <th scope="row">{label}</th>
              <td class="number">{formatCost(sums.cost)}</td>
              <td class="number">{formatCount(sums.inputTokens)}</td>
              <td class="number">{formatCount(sums.cachedInputTokens)}</td>
              <td class="number">{formatCount(sums.outputTokens)}</td>
              <td class="number">{formatCount(sums.calls)}</td>
            </tr>
          ))}
        </Table>
      </details>
    </section>
  );
}

function hintOf(label: string, sums: UsageSumsFragment): string {
  const { cost, inputTokens, outputTokens, calls } = sums;
  const tokens = `${formatCount(inputTokens)} input and ${counted(outputTokens, "output token")}`;
  return `${label}: ${formatCost(cost)}, ${tokens}, ${counted(calls, "call")}`;
}

/** Sums by what they are grouped by: the most expensive, and the others together. */
export function Breakdown(props: {
  title: string;
  head: string;
  measure: Measure;
  total: UsageSumsFragment;
  rows: readonly (UsageSumsFragment & { name: string })[];
}) {
  const { measure } = props;
  const size = (sums: UsageSumsFragment) => measure.values(sums).reduce((sum, value) => sum + value, 0);
  const shown = props.rows.toSorted((one, other) => size(other) - size(one));
  const others = remainder(props.total, shown);
  const rows = others.calls === "0" ? shown : [...shown, { ...others, name: "All others" }];
  const largest = Math.max(...rows.map(size));
  return (
    <section class="panel">
      <h2>
        {measure.title} {props.title.toLowerCase()}
      </h2>
      <Table caption={`${measure.title} ${props.title.toLowerCase()}`} heads={[props.head, "#Cost", "#Input", "#Output", "#Calls"]}>
        {rows.map((row) => (
          <tr key={row.name}>
            <th scope="row">
              {row.name}
              <ShareBar series={measure.series} values={measure.values(row)} of={largest} />
            </th>
            <td class="number">{formatCost(row.cost)}</td>
            <Tokens count={row.inputTokens} />
            <Tokens count={row.outputTokens} />
            <td class="number">{formatCompact(row.calls)}</td>
          </tr>
        ))}
      </Table>
    </section>
  );
}

function Tokens({ count }: { count: string }) {
  return (
    <td class="number" title={formatCount(count)}>
      {formatCompact(count)}
    </td>
  );
}

/** What the rows leave of the total. */
function remainder(total: UsageSumsFragment, rows: readonly UsageSumsFragment[]): UsageSumsFragment {
  const left = (key: Exclude<keyof UsageSumsFragment, "__typename">) => {
    const rest = rows.reduce((rest, row) => rest - Number(row[key]), Number(total[key]));
    return String(Math.max(0, Number(rest.toFixed(9))));
  };
  return {
    cost: left("cost"),
    inputTokens: left("inputTokens"),
    cachedInputTokens: left("cachedInputTokens"),
    outputTokens: left("outputTokens"),
    calls: left("calls"),
  };
}
