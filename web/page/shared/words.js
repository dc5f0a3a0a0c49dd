/** The message of an error. @param {unknown} error */
export const words = (error) => (error instanceof Error ? error.message : String(error))
