import { useMonaco } from "@graphiql/react";
import { useEffect } from "react";

/**
 * Turns off validation in the editor of variables, but not completion: it reports non-null
 * variables as missing even if they have defaults.
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
