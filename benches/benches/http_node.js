// The alternative: what many write in an afternoon. POST {"command"}, answered when it has ended.
const { execFile } = require('node:child_process');
const http = require('node:http');

const server = http.createServer((request, response) => {
  let body = '';
  request.on('data', (chunk) => { body += chunk; });
  request.on('end', () => {
    const { command, args = [] } = JSON.parse(body);
    execFile(command, args, (error, stdout, stderr) => {
      const exitCode = error ? error.code : 0;
      const answer = JSON.stringify({ success: exitCode === 0, exitCode, stdout, stderr });
      response.writeHead(200, {
        'Content-Type': 'application/json',
        'Content-Length': Buffer.byteLength(answer),
      });
      response.end(answer);
    });
  });
});
server.listen(0, '127.0.0.1', () => console.log(`127.0.0.1:${server.address().port}`));
