import { once } from 'node:events'
import { chown, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import pg from 'pg'
import { type PostgresServer, startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import type { Certificate } from '../support/certificates.ts'
import { eventually } from '../support/eventually.ts'

export interface SecurePostgres {
  readonly server: PostgresServer
  /** shows this certificate from now on; null: speaks in the clear only */
  show(certificate: Certificate | null): Promise<void>
  /** `pg_hba.conf`; the first line that matches counts, and the administrator's socket-free way in stays first */
  admit(lines: readonly string[]): Promise<void>
  query(text: string): Promise<pg.QueryResult>
  remove(): Promise<void>
}

const ADMIN = 'millrace_test_admin'

/** A server whose certificate and rules can be changed while it runs. */
export async function startSecurePostgres(clientCa: string): Promise<SecurePostgres> {
  const server = await startPostgresServer({ settings: { fsync: 'off' } })
  const write = async (name: string, text: string): Promise<void> => {
    const path = join(server.dataDir, name)
    await writeFile(path, text, { mode: 0o600 })
    if (process.getuid?.() === 0) await chown(path, 65_534, 65_534)
  }
  const url = server.url().replace('postgres@', `${ADMIN}@`)
  const query = async (text: string, at = url): Promise<pg.QueryResult> => {
    const client = new pg.Client({ connectionString: at, ssl: false })
    await client.connect()
    try {
      return await client.query(text)
    } finally {
      await client.end()
    }
  }
  await query(`create role ${ADMIN} superuser login`, server.url())
  await write('client-ca.pem', clientCa)
  const reload = async (): Promise<void> => void (await query('select pg_reload_conf()'))

  return {
    server,
    query,
    async show(certificate) {
      if (certificate !== null) {
        await write('shown.pem', certificate.certificate)
        await write('shown.key', certificate.key)
        await query(`alter system set ssl_cert_file = 'shown.pem'`)
        await query(`alter system set ssl_key_file = 'shown.key'`)
        await query(`alter system set ssl_ca_file = 'client-ca.pem'`)
      }
      await query(`alter system set ssl = ${certificate === null ? 'off' : 'on'}`)
      await reload()
      await eventually(async () => (await shownBy(server.port)) === (certificate === null ? null : fingerprint(certificate)), {
        what: 'the server to show its new certificate',
      })
    },
    async admit(lines) {
      const all = [`host all ${ADMIN} 127.0.0.1/32 trust`, ...lines].join('\n')
      await write('pg_hba.conf', `${all}\n`)
      await reload()
      await eventually(
        async () => (await query('select count(*)::int as n from pg_hba_file_rules')).rows[0]?.n === lines.length + 1,
        {
          what: 'the rules to hold',
        },
      )
    },
    remove: () => server.remove(),
  }
}

const fingerprint = ({ certificate }: Certificate): string => certificate.replace(/-----.*?-----|\s/g, '')

/** asks as Postgres' protocol does; null: it does not speak TLS */
async function shownBy(port: number): Promise<string | null> {
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  socket.write(Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]))
  const [answer] = (await once(socket, 'data')) as [Buffer]
  if (answer.toString() !== 'S') {
    socket.destroy()
    return null
  }
  const secure = connectTls({ socket, rejectUnauthorized: false })
  await once(secure, 'secureConnect')
  const { raw } = secure.getPeerCertificate()
  secure.destroy()
  return raw.toString('base64')
}
