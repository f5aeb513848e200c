// A real OAuth server on loopback: clients register themselves (RFC 7591), are managed (RFC 7592) and ask for
// tokens with client_credentials. Run in the folder that holds node_modules: node provider.mjs PORT
// With INITIAL_ACCESS_TOKEN in the environment, only who shows it may register.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

// The packages are installed outside of the source tree, so they are resolved from the working folder.
const require = createRequire(join(process.cwd(), 'provider.mjs'));
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

const port = Number(process.argv[2] ?? 0);
const initialAccessToken = process.env.INITIAL_ACCESS_TOKEN;

// The issuer names the port, so with port 0 it is known only once the socket is bound.
const { createServer } = await import('node:http');
const server = createServer();
server.listen(port, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    features: {
      registration: { enabled: true, initialAccessToken },
      registrationManagement: { enabled: true, rotateRegistrationAccessToken: false },
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
    },
    clientAuthMethods: ['client_secret_basic', 'client_secret_post'],
    // Nobody logs in here: without this the server warns of the missing interaction page.
    interactions: { url: () => '/none' },
  });
  server.on('request', provider.callback());
  console.log(`ready ${issuer}`);
});

// The test that started us holds our standard input: when it dies, however it dies, so do we.
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
process.on('SIGTERM', () => process.exit(0));
