import type { Epoch } from '../../src/core/epoch.ts'
import { position } from '../../src/core/position.ts'
import type { RelayState } from '../../src/core/relay-state.ts'
import type { SourceIdentity } from '../../src/core/source.ts'

/** A stream that has relayed a little on timeline 1 of one server. */
export const epoch = (number: number, change: Partial<Epoch> = {}): Epoch => ({
  epoch: number,
  systemId: '7301',
  timeline: 1,
  began: 0n,
  from: 0n,
  ...change,
})

export const state: RelayState = {
  streamId: 's-1',
  session: 4,
  source: 'shop',
  slot: 'millrace_shop',
  publication: '16/17',
  epochs: [epoch(1)],
  intent: 0x1_0000_00a0n,
  fingerprint: 'f',
  topics: new Map([
    [
      'outbox.event.order',
      [
        { position: position(1, 9n, 2), offset: 41n },
        { position: null, offset: -1n },
      ],
    ],
  ]),
  copied: { epoch: 1, session: 3, intent: 0x1_0000_0000n },
  gaps: [],
  drained: null,
  floor: null,
}

export const identity: SourceIdentity = {
  systemId: '7301',
  timeline: 1,
  history: [],
  walEnd: 0x1_0000_0100n,
  slot: 'millrace_shop',
  publication: '16/17',
  confirmed: 0x1_0000_00a0n,
}
