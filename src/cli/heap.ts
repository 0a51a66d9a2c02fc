import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8'

/** V8's young generation stops growing at this size of a semi-space (bytes); its own limit is larger on large machines */
const YOUNG = 16 << 20
/** how much of garbage the old generation may gather before it is collected, in percent of what lives */
const OLD_GROWTH = 150
const LOOK = 100

/**
 * Keeps the resident memory of a long-running process near what it needs. Events are short-lived garbage: left alone, V8
 * takes two to three times the memory before it collects them, for little speed (measured by `npm run bench`).
 *
 * Both are flags of V8 that take effect while it runs; where one did not, only memory would be lost.
 */
export function boundHeap(): void {
  setFlagsFromString(`--heap-growing-percent=${OLD_GROWTH}`)
  const look = setInterval(() => {
    const young = getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space')
    // both of its halves are counted
    if (young !== undefined && young.space_size < 2 * YOUNG) return
    setFlagsFromString('--semi-space-growth-factor=1')
    clearInterval(look)
  }, LOOK)
  look.unref()
}
