/**
 * The page's one Trusted Types policy, `kodo`: script URLs are this page's own files, markup is what the one sanitizer made.
 * The CSP allows no other policy, so whatever is dangerous comes through here.
 */

interface Policy {
  createHTML(text: string): string
  createScriptURL(url: string): string
}

/** Files of this page that may run as workers. */
const OWN_SCRIPTS: ReadonlySet<string> = new Set(['sw.js'])

let sanitize: (text: string) => string = () => {
  throw new TypeError('no sanitizer is set')
}

/** Set what makes markup harmless, once: the page does when it loads it. */
export function setSanitizer(sanitizer: (text: string) => string): void {
  sanitize = sanitizer
}

const rules: Policy = {
  createHTML: text => sanitize(text),
  createScriptURL: url => {
    if (OWN_SCRIPTS.has(url)) return url
    throw new TypeError('that is no script of this page')
  }
}

interface Factory {
  createPolicy(name: string, rules: Policy): Policy
}

const factory = (globalThis as { trustedTypes?: Factory }).trustedTypes

/** What the browser takes in place of texts where it knows Trusted Types; plain texts elsewhere. */
export const policy: Policy = factory ? factory.createPolicy('kodo', rules) : rules
