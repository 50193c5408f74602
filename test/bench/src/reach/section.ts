import { rounded, shown } from '../report/format.js'
import { markdownTable } from '../report/table.js'
import type { Cost, Reach } from './measure.js'

/** In µs of one core. */
const SECOND = 1e6
const MASTERS = 100
/** A replica for each. */
const NODES = 2 * MASTERS
/** What comes before each message on the bus of Redis 7, in bytes (`clusterMsg` in `cluster.h`). */
const BUS_HEADER = 2256
const BUS_MESSAGE = 120

/** How far it carries, calculated from what was measured. */
export function reachSection({ single, cluster, fanout }: Reach): string {
  const perMaster = ({ cpu, received, sent }: Cost) => {
    const locks = SECOND / cpu
    return [
      shown(cpu),
      rounded(locks),
      megabytes(locks * received),
      megabytes(locks * sent),
      megabytes(locks * MASTERS * received),
    ]
  }
  // Each hand-over costs its own node the script and the message to all others, and each other node
  // the message: so much of a second of each of them, when all masters take the same part.
  const handOver =
    (cluster.handedOver.cpu + (NODES - 1) * fanout.send) / MASTERS +
    ((MASTERS - 1) / MASTERS) * fanout.receive
  const handOvers = SECOND / handOver
  const alone = (MASTERS * SECOND) / cluster.handedOver.cpu
  const freeLocks = (MASTERS * SECOND) / cluster.free.cpu
  const bus = handOvers * (NODES - 1) * (BUS_HEADER + BUS_MESSAGE)
  return `## How far it carries

Redis runs commands on one core. What one lock costs there says how many there can be, if clients on
enough machines ask for them:

${markdownTable([
  ['measured', 'locks/s here', 'Redis CPU / lock, µs', 'commands / lock', 'bytes in', 'bytes out'],
  ['one server, nobody else wants it', ...measured(single.free)],
  ['one server, handed over to another process', ...measured(single.handedOver)],
  ['Cluster of 3 masters, nobody else wants it', ...measured(cluster.free)],
  ['Cluster of 3 masters, handed over to another process', ...measured(cluster.handedOver)],
])}

On a Cluster each ask travels alone, since others' slots differ; the clients, three masters and three
replicas share the cores of this machine here.

${markdownTable([
  [
    'calculated, for each master with a core of its own',
    'Redis CPU / lock, µs',
    'locks/s',
    'MB/s in',
    'MB/s out',
    `MB/s in, ${MASTERS} masters`,
  ],
  ['one server, nobody else wants it', ...perMaster(single.free).slice(0, -1), '–'],
  ['one server, handed over', ...perMaster(single.handedOver).slice(0, -1), '–'],
  ['Cluster, nobody else wants it', ...perMaster(cluster.free)],
  ['Cluster, handed over, without the bus', ...perMaster(cluster.handedOver)],
])}

- **A lock that nobody else wants** touches one master only. ${MASTERS} masters carry ${MASTERS} times as
  many: about ${rounded(freeLocks)} locks/s.
- **A hand-over inside a process** touches none.
- **A hand-over to another process** is a PUBLISH, and a Cluster takes each PUBLISH to every node: measured,
  ${shown(fanout.send)} µs of CPU for each other node where it is sent, and ${shown(fanout.receive)} µs
  on each that gets it. With ${MASTERS} masters and a replica for each, that limits the whole Cluster to about
  ${rounded(handOvers)} such hand-overs/s, where the scripts alone would allow ${rounded(alone)}; they
  would then send ${megabytes(bus)} MB/s over the bus, since each message there has a header of
  ${BUS_HEADER.toLocaleString('en-US')} bytes in Redis 7.

What would have to change first is therefore the push: to sharded channels (\`SPUBLISH\`, Redis 7), which
stay within the shard of the lock. A script may publish only to a channel of its own slot, so a
process would subscribe on each shard that it waits on, and the inbox would have a name for each. Until
then, put keys that many processes fight for on few shards, by hash tags, or on a Redis of their own.
`
}

const measured = ({ locks, cpu, commands, received, sent }: Cost): string[] =>
  [locks, cpu, commands, received, sent].map(shown)

const megabytes = (bytes: number): string => shown(bytes / 1e6)
