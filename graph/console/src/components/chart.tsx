import { useEffect, useId, useRef, useState } from "preact/hooks";

import { niceTicks } from "./ticks";

/** One kind of value in each bar. Fills differ by colour and by pattern. */
export type Series = { title: string; fill: "plain" | "striped" | "dotted" };

/** A bar: a value for each series, stacked; `hint` is all of it in words. */
export type Bar = { key: string; label: string; values: number[]; hint: string };

const HEIGHT = 200;
const TOP = 8;
const BOTTOM = 24;
const LEFT = 52;
const LABEL = 64; // the least width for a label below the bars
const EDGE = 20; // the least distance of its middle to the right end

/** A chart of stacked bars, drawn for the width that it has. What it shows must also be in a table. */
export function BarChart(props: {
  title: string;
  series: readonly Series[];
  bars: readonly Bar[];
  format: (value: number) => string;
}) {
  const { title, series, bars, format } = props;
  const figure = useRef<HTMLElement>(null);
  const width = useWidth(figure);
  const id = useId();
  const ticks = niceTicks(Math.max(...bars.map(({ values }) => sum(values)), 0));
  const top = ticks.at(-1) ?? 1;
  const y = (value: number) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
  const step = Math.max(width - LEFT, 0) / Math.max(bars.length, 1);
  const thickness = Math.min(step * 0.75, 40);
  const every = Math.max(1, Math.ceil(LABEL / step));
  return (
    <figure class="chart" ref={figure}>
      {series.length > 1 && (
        <figcaption>
          {series.map(({ title, fill }) => (
            <span key={fill}>
              <svg viewBox="0 0 12 12" aria-hidden="true">
                <rect width="12" height="12" fill={paint(id, fill)} />
              </svg>
              {title}
            </span>
          ))}
        </figcaption>
      )}
      <svg width={width} height={HEIGHT} role="img" aria-label={title}>
        <defs>
          <Patterns id={id} />
        </defs>
        {ticks.map((tick) => (
          <g key={tick}>
            <line class="grid" x1={LEFT} x2={width} y1={y(tick)} y2={y(tick)} />
            <text x={LEFT - 8} y={y(tick) + 4} text-anchor="end">
              {format(tick)}
            </text>
          </g>
        ))}
        {bars.map(({ key, label, values, hint }, index) => {
          const x = LEFT + step * (index + 0.5);
          return (
            <g key={key}>
              <title>{hint}</title>
              <rect class="target" x={x - step / 2} width={step} y={TOP} height={HEIGHT - TOP - BOTTOM} />
              {values.map((value, at) => {
                const below = sum(values.slice(0, at));
                return (
                  <rect
                    key={at}
                    x={x - thickness / 2}
                    width={thickness}
                    y={y(below + value)}
                    height={Math.max(0, y(below) - y(below + value))}
                    fill={paint(id, series[at]?.fill ?? "plain")}
                  />
                );
              })}
              {(bars.length - 1 - index) % every === 0 && (
                <text x={Math.min(x, width - EDGE)} y={HEIGHT - 6} text-anchor="middle">
                  {label}
                </text>
              )}
            </g>
          );
        })}
      </svg>
    </figure>
  );
}

/** A share of the largest, as a bar in a table; the numbers stand beside it. */
export function ShareBar(props: { series: readonly Series[]; values: readonly number[]; of: number }) {
  const id = useId();
  const share = (value: number) => `${(100 * value) / (props.of || 1)}%`;
  return (
    <svg class="share" aria-hidden="true">
      <defs>
        <Patterns id={id} />
      </defs>
      {props.values.map((value, at) => (
        <rect
          key={at}
          x={share(sum(props.values.slice(0, at)))}
          width={share(value)}
          height="100%"
          fill={paint(id, props.series[at]?.fill ?? "plain")}
        />
      ))}
    </svg>
  );
}

function paint(id: string, fill: Series["fill"]): string {
  return `url(#${id}-${fill})`;
}

function Patterns({ id }: { id: string }) {
  const common = { patternUnits: "userSpaceOnUse", width: 6, height: 6 } as const;
  return (
    <>
      <pattern id={`${id}-plain`} {...common}>
        <rect class="plain" width="6" height="6" />
      </pattern>
      <pattern id={`${id}-striped`} {...common} patternTransform="rotate(45)">
        <rect class="striped" width="3" height="6" />
      </pattern>
      <pattern id={`${id}-dotted`} {...common}>
        <circle class="dotted" cx="3" cy="3" r="2.4" />
      </pattern>
    </>
  );
}

function sum(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

/** The width of an element, followed as it changes. */
function useWidth(element: { current: HTMLElement | null }): number {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    if (!element.current) return;
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry?.contentRect.width ?? 0)));
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return width;
}
