import { Link, usePlace } from "../router";

/** Links to the page before and after this one of a connection. The cursors stand in the URL. */
export function Pager(props: {
  pageInfo: {
    hasNextPage: boolean;
    hasPreviousPage: boolean;
    startCursor?: string | null;
    endCursor?: string | null;
  };
  label: string;
}) {
  const { path, query } = usePlace();
  const { hasNextPage, hasPreviousPage, startCursor, endCursor } = props.pageInfo;
  if (!hasNextPage && !hasPreviousPage) return null;
  const at = (cursors: Record<string, string | null | undefined>) => ({
    ...Object.fromEntries(query),
    after: null,
    before: null,
    ...cursors,
  });
  return (
    <nav class="pager" aria-label={props.label}>
      {hasPreviousPage && (
        <Link to={path} query={at({ before: startCursor })}>
          ← Previous
        </Link>
      )}
      {hasNextPage && (
        <Link to={path} query={at({ after: endCursor })}>
          Next →
        </Link>
      )}
    </nav>
  );
}

/** The variables of a connection for where one is in it. */
export function pageOf(query: URLSearchParams, size: number) {
  const before = query.get("before");
  return before ? { last: size, before } : { first: size, after: query.get("after") };
}
