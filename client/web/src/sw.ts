/**
 * The service worker. It answers nothing but downloads that a page of this origin offered, from what that page sends; all
 * other requests go their way as if it were not there, and it keeps nothing.
 */
import type { StreamOffer } from './files/stream-sink.ts'

/** The part of a service worker's scope that is used; TypeScript knows it by another library only. */
interface Scope {
  skipWaiting(): Promise<void>
  clients: { claim(): Promise<void> }
  registration: { scope: string }
  addEventListener(type: 'install' | 'activate', listener: (event: { waitUntil(promise: Promise<unknown>): void }) => void): void
  addEventListener(type: 'message', listener: (event: MessageEvent<unknown>) => void): void
  addEventListener(type: 'fetch', listener: (event: { request: Request; respondWith(response: Response): void }) => void): void
}

const scope = globalThis as unknown as Scope
/** Offers that nobody has fetched yet; a page makes one a download, and the browser fetches it at once. */
const MAX_OFFERS = 64
const offers = new Map<string, { offer: StreamOffer; port: MessagePort }>()

scope.addEventListener('install', event => event.waitUntil(scope.skipWaiting()))
scope.addEventListener('activate', event => event.waitUntil(scope.clients.claim()))

scope.addEventListener('message', ({ data, ports }) => {
  const offer = data as StreamOffer | undefined
  const [port] = ports
  if (offer?.type !== 'kodo-download' || !port) return
  for (const oldest of offers.keys()) {
    if (offers.size < MAX_OFFERS) break
    offers.delete(oldest)
  }
  offers.set(offer.id, { offer, port })
  port.postMessage('known')
})

scope.addEventListener('fetch', event => {
  const { pathname } = new URL(event.request.url)
  const { pathname: base } = new URL(scope.registration.scope)
  if (!pathname.startsWith(`${base}download/`)) return
  const id = pathname.slice(`${base}download/`.length)
  const known = offers.get(id)
  offers.delete(id)
  event.respondWith(known ? answer(known.offer, known.port) : new Response('This download is over.', { status: 410 }))
})

function answer(offer: StreamOffer, port: MessagePort): Response {
  const body = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        port.onmessage = ({ data }: MessageEvent<unknown>) => {
          if (data instanceof Uint8Array) controller.enqueue(data)
          else if (data === 'end') {
            controller.close()
            port.close()
          } else controller.error(new Error('the download was broken off'))
        }
      },
      pull() {
        port.postMessage('pull')
      },
      cancel() {
        port.postMessage('cancel')
        port.close()
      }
    },
    { highWaterMark: 2 }
  )
  // Whatever it is, it is saved and never shown: as a page of this origin it would have this origin's rights.
  const headers = new Headers({
    'Content-Type': 'application/octet-stream',
    'Content-Disposition': `attachment; filename*=UTF-8''${encodeURIComponent(offer.name).replace(/['()*]/g, each => `%${each.charCodeAt(0).toString(16)}`)}`,
    'Content-Security-Policy': "default-src 'none'; sandbox",
    'X-Content-Type-Options': 'nosniff',
    'Cache-Control': 'no-store'
  })
  if (offer.size !== undefined) headers.set('Content-Length', String(offer.size))
  return new Response(body, { headers })
}
