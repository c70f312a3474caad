/** Keys: by WebCrypto where the browser has Ed25519 and X25519, else by a library that is loaded then. */
import type { KeyPair, NoiseCrypto, Signer } from '../core/noise.ts'
import type { Bytes } from '../core/value.ts'

const bytes = (buffer: ArrayBuffer): Bytes => new Uint8Array(buffer)

/** `crypto.subtle`, undefined in insecure contexts, whatever the types say. */
export const subtle = (): SubtleCrypto | undefined => crypto.subtle

async function webKeyPair(web: SubtleCrypto): Promise<KeyPair> {
  const pair = (await web.generateKey('X25519', false, ['deriveBits']))
  return {
    publicKey: bytes(await web.exportKey('raw', pair.publicKey)),
    dh: async theirs => {
      const key = await web.importKey('raw', theirs, 'X25519', false, [])
      return bytes(await web.deriveBits({ name: 'X25519', public: key }, pair.privateKey, 256))
    }
  }
}

async function libraryKeyPair(): Promise<KeyPair> {
  const { x25519 } = await import('@noble/curves/ed25519.js')
  const secret = x25519.utils.randomSecretKey()
  return {
    publicKey: x25519.getPublicKey(secret),
    dh: theirs => Promise.resolve(x25519.getSharedSecret(secret, theirs) as Bytes)
  }
}

/** Ask WebCrypto, and the library where it does not know the algorithm. Refusals of a peer's bytes are not that. */
async function either<Result>(web: (web: SubtleCrypto) => Promise<Result>, library: () => Promise<Result>): Promise<Result> {
  const own = subtle()
  if (!own) return library()
  try {
    return await web(own)
  } catch (error) {
    if (error instanceof DOMException && error.name === 'NotSupportedError') return library()
    throw error
  }
}

export const noiseCrypto: NoiseCrypto = {
  keyPair: () => either(webKeyPair, libraryKeyPair),
  verify: (publicKey, signature, message) =>
    either(
      async web => web.verify('Ed25519', await web.importKey('raw', publicKey, 'Ed25519', false, ['verify']), signature, message),
      async () => {
        const { ed25519 } = await import('@noble/curves/ed25519.js')
        return ed25519.verify(signature, message, publicKey)
      }
    )
}

/** An identity as it is kept: a key that WebCrypto does not give away, or where it has no Ed25519 a seed. */
export type KeptKey = { pair: CryptoKeyPair } | { seed: Bytes }

/** The head of an Ed25519 private key as PKCS #8 (RFC 8410); its seed follows. */
const PKCS8_HEAD = Uint8Array.of(0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20)

/** Make a key that nobody can read, not even this page, where the browser can. */
export function makeKey(): Promise<KeptKey> {
  return either<KeptKey>(
    async web => ({ pair: (await web.generateKey('Ed25519', false, ['sign', 'verify'])) }),
    () => Promise.resolve({ seed: crypto.getRandomValues(new Uint8Array(32)) })
  )
}

/** Return the public key (32 bytes) of a seed. */
async function publicKeyOf(seed: Bytes): Promise<Bytes> {
  const { ed25519 } = await import('@noble/curves/ed25519.js')
  return ed25519.getPublicKey(seed)
}

/** Keep a seed as `makeKey` would. */
export function keepSeed(seed: Bytes): Promise<KeptKey> {
  return either<KeptKey>(
    async web => {
      const pkcs8 = new Uint8Array([...PKCS8_HEAD, ...seed])
      const privateKey = await web.importKey('pkcs8', pkcs8, 'Ed25519', false, ['sign'])
      const publicKey = await web.importKey('raw', await publicKeyOf(seed), 'Ed25519', true, ['verify'])
      return { pair: { privateKey, publicKey } }
    },
    () => Promise.resolve({ seed })
  )
}

/** Return what signs with a kept key. */
export async function signerOf(kept: KeptKey): Promise<Signer> {
  if ('pair' in kept) {
    const web = crypto.subtle
    const publicKey = bytes(await web.exportKey('raw', kept.pair.publicKey))
    return { publicKey, sign: async message => bytes(await web.sign('Ed25519', kept.pair.privateKey, message)) }
  }
  const { ed25519 } = await import('@noble/curves/ed25519.js')
  return { publicKey: await publicKeyOf(kept.seed), sign: message => Promise.resolve(ed25519.sign(message, kept.seed) as Bytes) }
}
