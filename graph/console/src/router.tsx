/** Pages by the fragment of the URL, such as `#/tasks/…?tab=history`: the server serves one file. */

import type { ComponentChildren, FunctionComponent } from "preact";

import { Store, useStore } from "./store";

/** Where one is: the path, such as `/tasks/…`, and the query after it. */
export type Place = { path: string; query: URLSearchParams };

/** A page, and the pattern of its path: a segment that begins with a colon is a parameter. */
export type Page = {
  path: string;
  view: FunctionComponent<{ params: Record<string, string>; query: URLSearchParams }>;
};

const place = new Store<Place>(parse(location.hash));
addEventListener("hashchange", () => place.set(parse(location.hash)));

function parse(hash: string): Place {
  const [path = "", query] = hash.slice(1).split("?", 2);
  return { path: path.startsWith("/") ? path : "/", query: new URLSearchParams(query) };
}

/** Where one is; the component renders again when that changes. */
export function usePlace(): Place {
  return useStore(place);
}

/** The URL of a page: `href("/tasks/:id", { id })`, and what follows the question mark. */
export function href(
  path: string,
  params: Record<string, string> = {},
  query: Record<string, string | null | undefined> = {},
): string {
  const filled = path.replace(/:(\w+)/g, (_, name) => encodeURIComponent(params[name] ?? ""));
  const entries = Object.entries(query).filter((entry): entry is [string, string] => !!entry[1]);
  return `#${filled}${entries.length ? `?${new URLSearchParams(entries)}` : ""}`;
}

/** Goes to a URL of `href`; `replace` leaves the present one out of the history. */
export function navigate(url: string, options: { replace?: boolean } = {}) {
  if (!options.replace) {
    location.hash = url;
    return;
  }
  history.replaceState(null, "", url);
  place.set(parse(url));
}

/** Where a link leads. */
export type LinkTo = {
  to: string;
  params?: Record<string, string>;
  query?: Record<string, string | null | undefined>;
};

/** A link to a page: `<Link to="/tasks/:id" params={{ id }}>`. */
export function Link(props: LinkTo & { class?: string; isCurrent?: boolean; children: ComponentChildren }) {
  return (
    <a
      class={props.class}
      href={href(props.to, props.params, props.query)}
      aria-current={props.isCurrent ? "page" : undefined}
    >
      {props.children}
    </a>
  );
}

/** The page of a path and its parameters, or null. */
export function match(pages: Page[], path: string): { page: Page; params: Record<string, string> } | null {
  const found = path.split("/");
  for (const page of pages) {
    const wanted = page.path.split("/");
    if (wanted.length !== found.length) continue;
    const params: Record<string, string> = {};
    const fits = wanted.every((segment, index) => {
      const value = found[index] ?? "";
      if (!segment.startsWith(":")) return segment === value;
      params[segment.slice(1)] = decode(value);
      return value !== "";
    });
    if (fits) return { page, params };
  }
  return null;
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment; // typed by hand
  }
}
