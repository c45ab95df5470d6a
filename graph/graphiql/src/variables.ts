import { useMonaco } from "@graphiql/react";
import { useEffect } from "react";

/**
 * Have the editor of variables help without judging: it calls whatever is not nullable missing,
 * defaults or not, and would mark variables that are right.
 */
export function useLenientVariables() {
  const languages = useMonaco((state) => state.monacoGraphQL);
  useEffect(() => {
    languages?.setDiagnosticSettings({
      ...languages.diagnosticSettings,
      jsonDiagnosticSettings: {
        ...languages.diagnosticSettings.jsonDiagnosticSettings,
        schemaValidation: "ignore",
      },
    });
  }, [languages]);
}
