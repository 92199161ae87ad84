/** The page for notebooks, built before the widget that holds it; see vite.config.ts. */
declare module "virtual:attlas-page" {
  export const script: string;
  export const style: string;
}
