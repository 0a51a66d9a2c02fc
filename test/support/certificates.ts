import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** PEM texts; the key is in PKCS #8. */
export interface Certificate {
  readonly certificate: string
  readonly key: string
}

/** A certificate authority of the test's own, made by `openssl`, good for a day. */
export interface Authority {
  readonly certificate: string
  /** for these names and IP addresses, e.g. `['localhost', '127.0.0.1']`; the first is its common name */
  issue(...names: readonly [string, ...string[]]): Promise<Certificate>
  /** one that was good until yesterday */
  issueExpired(...names: readonly [string, ...string[]]): Promise<Certificate>
}

const openssl = promisify(execFile)

export async function createAuthority(name = 'Millrace test authority'): Promise<Authority> {
  const root = await inFolder(async (folder) => {
    const [key, certificate] = [join(folder, 'key.pem'), join(folder, 'certificate.pem')]
    const subject = [
      '-subj',
      `/CN=${name}`,
      '-addext',
      'basicConstraints=critical,CA:TRUE',
      '-addext',
      'keyUsage=critical,keyCertSign',
    ]
    await openssl('openssl', ['req', '-x509', ...NEW_KEY, '-days', '1', '-keyout', key, '-out', certificate, ...subject])
    return read(certificate, key)
  })
  const issue = (names: readonly [string, ...string[]], days: number): Promise<Certificate> =>
    inFolder(async (folder) => {
      const file = (part: string): string => join(folder, part)
      await writeFile(file('ca.pem'), root.certificate)
      await writeFile(file('ca.key'), root.key)
      const alternatives = names.map((each) => (/^[\d.]+$|:/.test(each) ? `IP:${each}` : `DNS:${each}`))
      await writeFile(file('extensions'), `subjectAltName=${alternatives.join(',')}\n`)
      const request = ['-keyout', file('key.pem'), '-out', file('request.pem'), '-subj', `/CN=${names[0]}`]
      await openssl('openssl', ['req', ...NEW_KEY, ...request])
      const signing = ['-CA', file('ca.pem'), '-CAkey', file('ca.key'), '-CAcreateserial', '-days', String(days)]
      const paths = ['-in', file('request.pem'), '-extfile', file('extensions'), '-out', file('certificate.pem')]
      await openssl('openssl', ['x509', '-req', ...signing, ...paths])
      return read(file('certificate.pem'), file('key.pem'))
    })
  return {
    certificate: root.certificate,
    issue: (...names) => issue(names, 1),
    issueExpired: (...names) => issue(names, -1),
  }
}

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']

async function read(certificate: string, key: string): Promise<Certificate> {
  return { certificate: await readFile(certificate, 'utf8'), key: await readFile(key, 'utf8') }
}

async function inFolder<Result>(work: (folder: string) => Promise<Result>): Promise<Result> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-certificate-'))
  try {
    return await work(folder)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
