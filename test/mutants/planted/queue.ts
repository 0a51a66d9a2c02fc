import { type Mutant, test } from '../mutant.ts'

/** In the queue's connectors. */
export const QUEUE_MUTANTS: readonly Mutant[] = [
  {
    bug: 'a publish whose answer was lost is sent again by the client',
    harm: 'an outcome is hidden from the session, which must end with it: the first request is written when it comes, behind what followed',
    file: 'connectors/queues/kafka/publisher.ts',
    edits: [
      {
        find: 'accept(chunks, await this.#request(link, writer))',
        replace: `const again = async () => this.#request(await this.#cluster.node(node), writer)
      accept(chunks, await this.#request(link, writer).catch(again))`,
      },
    ],
    caughtBy: test(
      'connectors/kafka-publisher',
      'an answer that breaks off leaves the outcome unknown, although the broker could be asked again',
    ),
  },
]
