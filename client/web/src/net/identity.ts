/** This browser's key. One that nobody can read cannot be moved either: what can be moved is sealed when it is made. */
import { base64url, fromBase64url } from '../core/bytes.ts'
import { LockedError, UsageError } from '../core/errors.ts'
import type { Signer } from '../core/noise.ts'
import { peerIdOf } from '../core/peerid.ts'
import type { Bytes } from '../core/value.ts'
import type { IdentityStore, LockState } from './api.ts'
import { type KeptKey, keepSeed, makeKey, signerOf, subtle } from './crypto.ts'
import type { Database } from './database.ts'
import { Listeners } from './listeners.ts'

/** OWASP's number for PBKDF2-HMAC-SHA256. */
const ROUNDS = 600_000
const MAX_ROUNDS = 10_000_000
const KEY = 'identity'

interface Kept {
  /** Missing where the key is locked: then there is nothing but the sealed seed. */
  key?: KeptKey
  /** The sealed seed, where there is one. */
  backup?: string
}

/** What tabs tell each other: the identity is another one now, or shall be locked. */
const CHANNEL = 'kodo-identity'

interface Backup {
  kodo: 'identity'
  peer_id: string
  rounds: number
  salt: string
  nonce: string
  sealed: string
}

/** Derive a key from a password. */
async function sealingKey(password: string, salt: Bytes, rounds: number): Promise<CryptoKey> {
  const web = subtle()
  if (!web) throw new UsageError('This page is not from a secure origin: here nothing can be sealed by a password.')
  if (password === '') throw new UsageError('The password is empty.')
  const secret = await web.importKey('raw', new TextEncoder().encode(password.normalize('NFC')), 'PBKDF2', false, ['deriveKey'])
  const derived = { name: 'PBKDF2', hash: 'SHA-256', salt, iterations: rounds }
  return web.deriveKey(derived, secret, { name: 'AES-GCM', length: 256 }, false, ['encrypt', 'decrypt'])
}

async function seal(seed: Bytes, peerId: string, password: string): Promise<string> {
  const salt = crypto.getRandomValues(new Uint8Array(16))
  const nonce = crypto.getRandomValues(new Uint8Array(12))
  const key = await sealingKey(password, salt, ROUNDS)
  const additionalData = new TextEncoder().encode(peerId)
  const sealed = await crypto.subtle.encrypt({ name: 'AES-GCM', iv: nonce, additionalData }, key, seed)
  const [saltText, nonceText, sealedText] = [salt, nonce, new Uint8Array(sealed)].map(base64url) as [string, string, string]
  const backup: Backup = { kodo: 'identity', peer_id: peerId, rounds: ROUNDS, salt: saltText, nonce: nonceText, sealed: sealedText }
  return JSON.stringify(backup)
}

function readBackup(text: string): Backup {
  let read: unknown
  try {
    read = JSON.parse(text)
  } catch {
    read = undefined
  }
  const backup = read as Partial<Backup> | null | undefined
  const texts = [backup?.peer_id, backup?.salt, backup?.nonce, backup?.sealed]
  const { rounds } = backup ?? {}
  if (backup?.kodo !== 'identity' || !texts.every(each => typeof each === 'string') || !Number.isSafeInteger(rounds) || rounds! < 1 || rounds! > MAX_ROUNDS)
    throw new UsageError('That is not the backup of an identity.')
  return backup as Backup
}

const WRONG_BACKUP = 'The password is wrong, or the backup is damaged.'
/** Of the copy that this browser keeps: nothing but a mistyped password is likely. */
const WRONG_HERE = 'This is not the password of your identity. Try again.'

/** Open a backup; returns the seed (32 bytes). */
async function unseal(text: string, password: string, wrong: string): Promise<Bytes> {
  const backup = readBackup(text)
  let parts: Bytes[]
  try {
    parts = [backup.salt, backup.nonce, backup.sealed].map(fromBase64url)
  } catch {
    throw new UsageError('That backup is damaged.')
  }
  const [salt, nonce, sealed] = parts as [Bytes, Bytes, Bytes]
  const key = await sealingKey(password, salt, backup.rounds)
  const additionalData = new TextEncoder().encode(backup.peer_id)
  try {
    const seed = new Uint8Array(await crypto.subtle.decrypt({ name: 'AES-GCM', iv: nonce, additionalData }, key, sealed))
    if (seed.length === 32) return seed
  } catch {
    throw new UsageError(wrong)
  }
  throw new UsageError('That backup is damaged.')
}

export class Identity implements IdentityStore {
  readonly #database: Database
  readonly #replaced: () => void
  readonly #changes = new Listeners<undefined>()
  readonly #tabs: BroadcastChannel
  #signer: Promise<Signer> | undefined
  /** How often it was dropped: what began before is not used after. */
  #dropped = 0

  /** @param replaced is called when another key, or none, is used from now on. */
  constructor(database: Database, replaced: () => void) {
    this.#database = database
    this.#replaced = replaced
    this.#tabs = new BroadcastChannel(`${CHANNEL} ${database.name}`)
    this.#tabs.onmessage = () => this.#drop()
  }

  onChange(listener: () => void): () => void {
    return this.#changes.on(listener)
  }

  close(): void {
    this.#tabs.close()
  }

  /** Use the key no longer that this page has in its memory. */
  #drop(): void {
    this.#dropped += 1
    this.#signer = undefined
    this.#replaced()
    this.#changes.tell(undefined)
  }

  #dropEverywhere(): void {
    this.#tabs.postMessage('changed')
    this.#drop()
  }

  async #kept(): Promise<Kept | undefined> {
    return (await this.#database.get('keys', KEY)) as Kept | undefined
  }

  /** Return what signs; makes the key at first use. */
  signer(): Promise<Signer> {
    this.#signer ??= this.#load().catch((error: unknown) => {
      this.#signer = undefined
      throw error
    })
    return this.#signer
  }

  async #load(): Promise<Signer> {
    const known = await this.#kept()
    // Two tabs may make one at once: the first that is kept is both's.
    const kept = known ?? ((await this.#database.putNew('keys', KEY, { key: await makeKey() })) as Kept)
    if (!kept.key) throw new LockedError('The key of this browser is locked. Unlock it by its password.')
    return signerOf(kept.key)
  }

  async lockState(): Promise<LockState> {
    const kept = await this.#kept()
    if (!kept || kept.key) return 'open'
    return this.#signer === undefined ? 'locked' : 'unlocked'
  }

  async lock(password: string): Promise<void> {
    const backup = await this.backup()
    // Whoever has forgotten the password learns it now, and not when it is too late.
    await unseal(backup, password, WRONG_HERE)
    await this.#database.put('keys', KEY, { backup })
    this.#dropEverywhere()
  }

  lockNow(): void {
    this.#dropEverywhere()
  }

  async unlock(password: string): Promise<void> {
    const dropped = this.#dropped
    const signer = await signerOf(await this.#opened(await this.backup(), password, WRONG_HERE))
    if (dropped !== this.#dropped) throw new LockedError('The key was locked again meanwhile.')
    this.#signer = Promise.resolve(signer)
    this.#changes.tell(undefined)
  }

  async removeLock(password: string): Promise<void> {
    const backup = await this.backup()
    await this.#use({ key: await this.#opened(backup, password, WRONG_HERE), backup })
  }

  async forget(): Promise<void> {
    await this.#database.remove('keys', KEY)
    for (const [place] of await this.#database.entries('logins')) await this.#database.remove('logins', place)
    this.#dropEverywhere()
  }

  /** Open a backup as a key, which is that of the peer id in it. */
  async #opened(backup: string, password: string, wrong: string): Promise<KeptKey> {
    const key = await keepSeed(await unseal(backup, password, wrong))
    if (peerIdOf((await signerOf(key)).publicKey) !== readBackup(backup).peer_id) throw new UsageError('That backup is damaged.')
    return key
  }

  async peerId(): Promise<string> {
    return peerIdOf((await this.signer()).publicKey)
  }

  async movable(): Promise<boolean> {
    return (await this.#kept())?.backup !== undefined
  }

  async backup(): Promise<string> {
    const backup = (await this.#kept())?.backup
    if (backup === undefined) throw new UsageError('This identity was made so that it cannot be moved. Make one that can.')
    return backup
  }

  async createMovable(password: string): Promise<string> {
    const seed = crypto.getRandomValues(new Uint8Array(32))
    const key = await keepSeed(seed)
    const backup = await seal(seed, peerIdOf((await signerOf(key)).publicKey), password)
    await this.#use({ key, backup })
    return backup
  }

  async restore(backup: string, password: string): Promise<string> {
    await this.#use({ key: await this.#opened(backup, password, WRONG_BACKUP), backup })
    return readBackup(backup).peer_id
  }

  async #use(kept: Kept): Promise<void> {
    await this.#database.put('keys', KEY, kept)
    this.#dropEverywhere()
  }
}
