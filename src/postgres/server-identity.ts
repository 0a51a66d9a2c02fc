import type pg from 'pg'
import type { ServerIdentity } from '../core/epoch.ts'
import { MillraceError } from '../core/errors.ts'
import { parseLsn } from '../core/position.ts'

/** Who the server is, asked on a replication connection, which alone answers these commands. Needs no slot. */
export async function identifyServer(client: pg.Client): Promise<ServerIdentity> {
  const { rows } = await client.query('IDENTIFY_SYSTEM')
  const said = rows[0] as { readonly systemid: string; readonly timeline: number | string; readonly xlogpos: string }
  const timeline = Number(said.timeline)
  return {
    systemId: said.systemid,
    timeline,
    history: timeline === 1 ? [] : await readHistory(client, timeline),
    walEnd: parseLsn(said.xlogpos),
  }
}

async function readHistory(client: pg.Client, timeline: number): Promise<ServerIdentity['history']> {
  const { rows } = await client.query(`TIMELINE_HISTORY ${timeline}`)
  // the column is a bytea before Postgres 15, which is sent as it is
  return parseHistory(String((rows[0] as { readonly content: string | Buffer }).content))
}

/**
 * The content of a timeline's history file: a line for each former timeline, `number, LSN at which it was left, why`,
 * set apart by white space. The server reads it likewise; a person may have put comments in.
 */
export function parseHistory(content: string): ServerIdentity['history'] {
  return content
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const [timeline = '', end = ''] = line.split(/\s+/)
      if (!/^\d{1,10}$/.test(timeline) || !/^[0-9a-fA-F]{1,8}\/[0-9a-fA-F]{1,8}$/.test(end))
        throw new MillraceError('MILLRACE_STREAM_INVALID', `the history of the server's timeline holds a line of another shape`)
      return { timeline: Number(timeline), end: parseLsn(end) }
    })
}
