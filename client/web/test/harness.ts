/** A page without pages: the engine as a global, for the tests that drive it in a browser. */
import * as errors from '../src/core/errors.ts'
import { parseLink } from '../src/core/link.ts'
import { noiseCrypto } from '../src/net/crypto.ts'
import { openEngine } from '../src/net/engine.ts'

Object.assign(globalThis, { errors, noiseCrypto, openEngine, parseLink })
