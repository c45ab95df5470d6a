/** Where the editors' workers are served; the build knows their names. */
declare const WORKERS: { editor: string; graphql: string; json: string };

/** Have Monaco load its workers from our own origin. */
Object.assign(globalThis, {
  MonacoEnvironment: {
    getWorkerUrl: (_id: string, label: string) =>
      label === "graphql" || label === "json" ? WORKERS[label] : WORKERS.editor,
  },
});
