import type { Request } from 'express'

/** What Express 4 and 5 keep of a route. */
interface Route {
  readonly stack?: readonly { readonly handle?: unknown }[]
  readonly methods?: Readonly<Record<string, boolean>>
}

/**
 * Has this route asked for the middleware, rather than a whole app or router?
 *
 * `req.route` alone does not tell: Express leaves it set when a route passes a request on. HEAD
 * requests that a route answers only because it answers GET have not been asked for.
 */
export function isMountedInRoute(middleware: unknown, req: Request): boolean {
  const route = req.route as Route | undefined
  if (!route?.stack?.some((layer) => layer.handle === middleware)) return false
  return req.method !== 'HEAD' || Boolean(route.methods?.head || route.methods?._all)
}
