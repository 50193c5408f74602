// Mocha adds the spec of its configuration to the files named on the command line.
const named = process.argv.slice(2).some((arg) => /^(\.\/)?test\//.test(arg))

module.exports = {
  // tsx alone would load the tests as CommonJS, and with them a second copy of each package.
  'node-option': ['no-experimental-require-module', 'import=tsx', 'conditions=@redismutex/source'],
  require: ['./test/support/hooks.ts'],
  reporter: './test/support/reporter.ts',
  spec: named ? [] : ['test/**/*.test.ts'],
  ignore: ['test/node_modules/**', 'test/bench/node_modules/**'],
  extension: ['test.ts'],
  recursive: true,
  timeout: 20_000,
  forbidOnly: Boolean(process.env.CI),
}
