/** Round values for the axis of a chart, from 0 to the first that is not below the largest value. */
export function niceTicks(largest: number, count = 4): number[] {
  if (!(largest > 0)) return [0, 1];
  const least = largest / count;
  const power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step * count >= largest) ?? least;
  return Array.from({ length: Math.ceil(largest / step) + 1 }, (_, index) => Number((index * step).toPrecision(12)));
}
