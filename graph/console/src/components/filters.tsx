/** What a page shows of a list: chosen by the person, and stored in the query of the URL. */

import { useQuery } from "@urql/preact";

import { ProjectChoicesDocument } from "../generated/operations";
import { href, navigate, usePlace } from "../router";

/** A function that changes values in the query of the URL; null removes one. Lists begin anew. */
export function useChoose(): (changes: Record<string, string | null>) => void {
  const { path, query } = usePlace();
  return (changes) => {
    const chosen = { ...Object.fromEntries(query), after: null, before: null, ...changes };
    navigate(href(path, {}, chosen), { replace: true });
  };
}

/** A choice of one value, `name` in the URL. Without `none`, the first option is the default. */
export function Choice(props: {
  name: string;
  label: string;
  /** The text of the choice that leaves nothing out. */
  none?: string;
  options: readonly (readonly [value: string, text: string])[];
}) {
  const { query } = usePlace();
  const choose = useChoose();
  const options = props.none === undefined ? props.options : [["", props.none] as const, ...props.options];
  return (
    <label class="choice">
      <span>{props.label}</span>
      <select
        value={query.get(props.name) ?? options[0]?.[0]}
        onChange={(event) => choose({ [props.name]: event.currentTarget.value || null })}
      >
        {options.map(([value, text]) => (
          <option key={value} value={value}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}

/** A choice of a project, `project` in the URL. It offers those that were changed last. */
export function ProjectChoice() {
  const chosen = usePlace().query.get("project");
  const [{ data }] = useQuery({
    query: ProjectChoicesDocument,
    variables: { chosen: chosen ?? "", isChosen: chosen !== null },
  });
  const found = [...(data?.projects.nodes ?? []), ...(data?.project ? [data.project] : [])];
  const options = [...new Map(found.map(({ id, name }) => [id, name]))];
  return <Choice name="project" label="Project" none="All projects" options={options} />;
}
