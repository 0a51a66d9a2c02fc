import { expect, onTestFinished, test } from 'vitest'
import { batchOf, eventStream } from '../../src/testing/events.ts'
import { eachPostgres, withClient } from '../postgres/each-postgres.ts'
import { eventually } from '../support/eventually.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { at, ORDERS, openSink } from './postgres-fixture.ts'

const PATIENCE = 1_500

eachPostgres('a batch that its sender stops sending', (create) => {
  test('gives up its locks once its session has been idle for too long, and not before', async () => {
    const database = await create()
    onTestFinished(() => database.drop())
    await withClient(database.url, (client) => client.query(ORDERS))
    const proxy = await startTcpProxy({ port: Number(new URL(database.url).port) })
    onTestFinished(() => proxy.remove())
    const sinkAt = async (url: string) => {
      const sink = await openSink({
        url,
        lockTimeout: 200,
        idleInTransactionTimeout: PATIENCE,
        tables: [{ from: 'order', into: 'orders', key: 'id', on: { Changed: 'upsert' } }],
      })
      onTestFinished(() => sink.close())
      return sink
    }
    const behindProxy = new URL(database.url)
    behindProxy.port = String(proxy.port)
    const stopped = await sinkAt(behindProxy.href)
    await stopped.init()
    const lane = await stopped.claim(at(0))
    const stream = eventStream()
    const changed = (note: string) => stream.next({ type: 'Changed', key: 'a', payload: { id: 'a', total: 1, note } })
    await lane.apply(batchOf([changed('before')], 1n))

    // the checkpoint's statement arrives, and the beginning of what is to follow it
    const half = proxy.holdAfter(10_000, 'to-server')
    const cut = lane.apply(batchOf([changed('x'.repeat(20_000))], 2n))
    cut.catch(() => {})
    await half
    const stalledAt = performance.now()

    const heir = await sinkAt(database.url)
    await expect(heir.claim(at(0))).rejects.toMatchObject({ code: 'MILLRACE_SINK_UNREACHABLE', fields: { cause: '55P03' } })
    const taken = await eventually(() => heir.claim(at(0)), { what: 'the partition is to be had' })
    expect(performance.now() - stalledAt).toBeGreaterThan(PATIENCE - 100)
    expect(taken.checkpoint.offset).toBe(1n)

    // what was held back goes out, to a session that is no more
    proxy.restore()
    await expect(cut).rejects.toThrow()
    await expect(lane.reread()).rejects.toMatchObject({ code: 'MILLRACE_SINK_FENCED' })
  })
})
