import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:net'

/**
 * A port on loopback for a server that goes away and comes back. It lies below the range that systems give to outgoing
 * connections: a client that redials a dead server inside that range can be given the server's own port, be connected to
 * itself, and keep the server from starting again.
 */
export async function steadyPort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = randomInt(20_000, 32_000)
    if (await free(port)) return port
  }
  throw new Error('no free port between 20000 and 32000')
}

async function free(port: number): Promise<boolean> {
  const probe = createServer()
  const outcome = Promise.race([once(probe, 'listening').then(() => true), once(probe, 'error').then(() => false)])
  probe.listen(port, '127.0.0.1')
  const isFree = await outcome.catch(() => false)
  if (isFree) await new Promise((resolve) => probe.close(resolve))
  return isFree
}
