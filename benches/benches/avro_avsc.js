// The alternative: an avsc server, which does nothing for each call either.
const net = require('node:net');
const avsc = require('avsc');

const protocol = JSON.parse(require('node:fs').readFileSync(process.argv[2], 'utf8'));
const service = avsc.Service.forProtocol({
  ...protocol,
  messages: { execute: protocol.messages.execute },
});
const server = service.createServer().onExecute((command, done) =>
  done(null, { exitCode: 0, stdout: '', stderr: '', duration: 0, sessionId: 's' }));
const listener = net.createServer((socket) => {
  socket.setNoDelay(true);
  server.createChannel(socket);
});
listener.listen(0, '127.0.0.1', () => console.log(`127.0.0.1:${listener.address().port}`));
