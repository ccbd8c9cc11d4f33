// A server of one large file.
//
// --mode pipe      createReadStream(...).pipe(response): when the client goes before the
//                  end, the response is closed and the stream is not, nor is its file
// --mode pipeline  stream.pipeline(), which closes both
//
// Every path but /large is answered with a few bytes. The file is made in --dir. It
// listens on a free port of loopback, prints "ready HOST:PORT", and ends when its standard
// input does.

'use strict';

const fs = require('fs');
const http = require('http');
const path = require('path');
const { pipeline } = require('stream');

// More than what the buffers of a connection take.
const LARGE = 32 * 1024 * 1024;

function flag(name, otherwise) {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? otherwise : process.argv[at + 1];
}

const mode = flag('mode', 'pipe');
const file = path.join(flag('dir', '.'), 'large.dat');
fs.writeFileSync(file, '');
fs.truncateSync(file, LARGE);

function sendLargeFile(response) {
  const source = fs.createReadStream(file);
  if (mode === 'pipe') {
    source.pipe(response);
  } else {
    // That a client has gone is no news.
    pipeline(source, response, () => {});
  }
}

const server = http.createServer((request, response) => {
  if (request.url === '/large') {
    sendLargeFile(response);
  } else {
    response.end('small\n');
  }
});

server.listen(0, '127.0.0.1', () => {
  console.log(`ready 127.0.0.1:${server.address().port}`);
});
process.stdin.on('end', () => process.exit(0)).resume();
