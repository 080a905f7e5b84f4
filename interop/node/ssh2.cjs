// What npm's ssh2 does over one connection, told as JSON. Usage: node ssh2.cjs PORT USER KEYFILE
const { readFileSync } = require('node:fs');
const { Client } = require('ssh2');

const [port, username, key] = process.argv.slice(2);
const client = new Client();
const told = (work) => new Promise((resolve, reject) => {
  work((error, value) => (error ? reject(error) : resolve(value)));
});

function run(command, input) {
  return new Promise((resolve, reject) => {
    client.exec(command, (error, channel) => {
      if (error) return reject(error);
      const ran = { stdout: '', stderr: '' };
      channel.on('data', (data) => { ran.stdout += data; });
      channel.stderr.on('data', (data) => { ran.stderr += data; });
      channel.on('exit', (code, signal) => Object.assign(ran, { code, signal }));
      channel.on('close', () => resolve(ran));
      channel.end(input);
    });
  });
}

client.on('error', (error) => { throw error; }).on('ready', async () => {
  const done = { ran: await run("sh -c 'cat; echo err >&2; exit 7'", 'typed') };
  const sftp = await told((done) => client.sftp(done));
  await told((done) => sftp.writeFile('by-npm', 'content', done));
  done.read = String(await told((done) => sftp.readFile('by-npm', done)));
  // Its first argument is the target.
  await told((done) => sftp.symlink('by-npm', 'link-by-npm', done));
  done.link = await told((done) => sftp.readlink('link-by-npm', done));
  done.names = (await told((done) => sftp.readdir('.', done))).map((entry) => entry.filename).sort();
  console.log(JSON.stringify(done));
  client.end();
}).connect({ host: '127.0.0.1', port: Number(port), username, privateKey: readFileSync(key) });
