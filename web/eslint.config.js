import nounsanitized from "eslint-plugin-no-unsanitized";
import tseslint from "typescript-eslint";

/** Text enters the page by textContent and JSX alone; whatever could read a string as HTML or as code is an error. */
const ONLY_TEXT = "text enters the page by textContent or JSX, never as HTML";
const asHtml = ["innerHTML", "outerHTML", "srcdoc", "insertAdjacentHTML", "createContextualFragment", "setHTMLUnsafe"];

export default tseslint.config(
  { ignores: ["node_modules"] },
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: { allowDefaultProject: ["eslint.config.js"] }, tsconfigRootDir: import.meta.dirname } },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    plugins: { "no-unsanitized": nounsanitized },
    rules: {
      "no-eval": "error",
      "no-implied-eval": "off", // the typed rule of the same name is on
      "no-new-func": "error",
      "no-script-url": "error",
      "no-unsanitized/method": "error",
      "no-unsanitized/property": "error",
      "no-restricted-properties": [
        "error",
        ...asHtml.map((property) => ({ property, message: ONLY_TEXT })),
        { object: "document", property: "write", message: ONLY_TEXT },
        { object: "document", property: "writeln", message: ONLY_TEXT },
      ],
      "no-restricted-syntax": [
        "error",
        { selector: "JSXAttribute[name.name='dangerouslySetInnerHTML']", message: ONLY_TEXT },
        { selector: "Property[key.name='dangerouslySetInnerHTML']", message: ONLY_TEXT },
        { selector: "NewExpression[callee.name='DOMParser']", message: ONLY_TEXT },
        { selector: "JSXAttribute[name.name='style'] > Literal", message: "a style is an object: strings would be parsed" },
      ],
      "max-lines": ["error", { max: 320, skipBlankLines: true, skipComments: true }],
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true, allowBoolean: true }],
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      "@typescript-eslint/no-non-null-assertion": "error",
      "@typescript-eslint/switch-exhaustiveness-check": "error",
    },
  },
  { files: ["eslint.config.js"], ...tseslint.configs.disableTypeChecked },
);
