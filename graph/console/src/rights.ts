/** What the viewer may do, so that pages show only buttons that work for them. */

import { useQuery } from "@urql/preact";
import { useRef } from "preact/hooks";

import { EditableProjectsDocument, type EditableProjectsQuery } from "./generated/operations";

/** Which of some projects, by their ids, the viewer may edit; none until that is known.
 *
 * The token must allow it. An administrator may edit all projects, a member some by their role.
 */
export function useEditable(projects: readonly string[]): (project: string) => boolean {
  const ids = [...new Set(projects)].sort();
  const [{ data }] = useQuery({
    query: EditableProjectsDocument,
    variables: { ids },
    pause: ids.length === 0,
    requestPolicy: "cache-and-network",
  });
  // What is known of a project stays while others are asked for.
  const last = useRef<EditableProjectsQuery | undefined>(undefined);
  last.current = data ?? last.current;
  const viewer = last.current?.viewer;
  if (!viewer?.rights.includes("EDIT")) return () => false;
  if (viewer.rights.includes("ADMINISTER")) return () => true;
  const editable = new Set(viewer.user?.memberships.nodes.map(({ project }) => project.id));
  return (project) => editable.has(project);
}
