/**
 * The wall clock of this process jumps at each SIGUSR2: forward by so many ms, back as far behind the truth, and home
 * again. Whoever asks `Date.now` sees it; the monotonic clock goes on as it must.
 */
export function letWallClockJump(ms: number): void {
  const real = Date.now
  const offsets = [ms, -ms, 0]
  let jumps = 0
  let offset = 0
  Date.now = () => real() + offset
  process.on('SIGUSR2', () => {
    offset = offsets[jumps++ % offsets.length] as number
  })
}
