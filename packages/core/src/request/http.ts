import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2'

export type HttpRequest = IncomingMessage | Http2ServerRequest
export type HttpResponse = ServerResponse | Http2ServerResponse

/** A method of a response, as anybody may call or wrap it. */
export type Method = (this: unknown, ...args: unknown[]) => unknown

export function isHttp2(res: HttpResponse): res is Http2ServerResponse {
  return !('assignSocket' in res)
}
