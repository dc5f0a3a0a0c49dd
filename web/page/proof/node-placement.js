// Reads on which provider onnxruntime placed the nodes of a graph, from the verbose log of a session's
// creation (VerifyEachNodeIsAssignedToAnEp in its session_state.cc).

/**
 * @typedef {object} NodePlacement
 * @property {number} webgpu the number of nodes on the WebGPU provider
 * @property {number} cpu the number of nodes on the CPU provider
 * @property {number} copies the number of nodes that onnxruntime added to copy a tensor between them
 * @property {Record<string, number> | null} cpuOperators the number of the CPU's nodes by operator;
 *   null if all nodes are on the CPU, because the log then lists none
 */

const LINE = /\[V:onnxruntime:[^\]]* VerifyEachNodeIsAssignedToAnEp\] (.*)$/
const TITLE = 'Node placements'
const ALL = /^ All nodes placed on \[(\w+)\]\. Number of nodes: (\d+)$/
const SOME = /^ Node\(s\) placed on \[(\w+)\]\. Number of nodes: (\d+)$/
const NODE = /^ {2}(\w+) \(.*\)$/
const COPY = /^Memcpy(To|From)Host$/ // among WebGPU's
const ADDED_COPY = / AddCopyNode\] Add Memcpy(To|From)Host /

const WEBGPU = 'WebGpuExecutionProvider'
const CPU = 'CPUExecutionProvider'

/**
 * The placement in a log. Null unless the log has exactly one graph, on these two providers, in the
 * form of onnxruntime-web 1.27, with consistent numbers.
 *
 * @param {readonly string[]} lines the whole log of a session's creation at severity 0
 * @returns {NodePlacement | null}
 */
export function nodePlacement(lines) {
  const [title, ...messages] = lines.flatMap((line) => LINE.exec(line)?.[1] ?? [])
  if (title !== TITLE) return null
  const copies = lines.filter((line) => ADDED_COPY.test(line)).length
  const [, only, count] = (messages.length === 1 && ALL.exec(messages[0])) || []
  if (only === WEBGPU && copies <= Number(count)) {
    return { webgpu: Number(count) - copies, cpu: 0, copies, cpuOperators: {} }
  }
  if (only === CPU && copies === 0) {
    return { webgpu: 0, cpu: Number(count), copies, cpuOperators: null }
  }
  const { [WEBGPU]: webgpu, [CPU]: cpu, ...others } = operatorsListed(messages) ?? {}
  if (!webgpu || !cpu || Object.keys(others).length) return null
  if (webgpu.filter((operator) => COPY.test(operator)).length !== copies) return null
  /** @type {Record<string, number>} */
  const cpuOperators = {}
  for (const operator of cpu) cpuOperators[operator] = (cpuOperators[operator] ?? 0) + 1
  return { webgpu: webgpu.length - copies, cpu: cpu.length, copies, cpuOperators }
}

/**
 * The operators of each provider's nodes, or null if the length of a list differs from its heading.
 *
 * @param {string[]} messages
 * @returns {Record<string, string[]> | null}
 */
function operatorsListed(messages) {
  /** @type {Record<string, string[]>} */
  const lists = {}
  /** @type {string[]} */
  let list = []
  let missing = 0
  for (const message of messages) {
    const [, provider, count] = SOME.exec(message) ?? []
    const operator = NODE.exec(message)?.[1]
    if (missing && operator) {
      list.push(operator)
      missing -= 1
    } else if (!missing && provider && !(provider in lists)) {
      list = lists[provider] = []
      missing = Number(count)
    } else {
      return null
    }
  }
  return missing ? null : lists
}
