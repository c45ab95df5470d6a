/** The URLs of the editors' workers, set by build.js. */
declare const WORKERS: { editor: string; graphql: string; json: string };

/** Makes Monaco load its workers from our own origin. */
Object.assign(globalThis, {
  MonacoEnvironment: {
    getWorkerUrl: (_id: string, label: string) =>
      label === "graphql" || label === "json" ? WORKERS[label] : WORKERS.editor,
  },
});
