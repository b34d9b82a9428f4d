// node.js NAME...: what Node's own resolver (c-ares) and getaddrinfo say
const dns = require('dns').promises;
async function say(what, ask) {
  try { console.log(what, JSON.stringify(await ask)); } catch (e) { console.log(what, e.code); }
}
(async () => {
  for (const name of process.argv.slice(2)) {
    await say(name + ' A', dns.resolve4(name).then(a => a.sort()));
    await say(name + ' AAAA', dns.resolve6(name));
    await say(name + ' lookup', dns.lookup(name, { all: true }).then(a => a.map(x => x.address).sort()));
  }
  await say('MX', dns.resolveMx('signed').then(a => a.map(x => x.priority + ' ' + x.exchange).sort()));
  await say('SRV', dns.resolveSrv('_sip._tcp.signed'));
  await say('NAPTR', dns.resolveNaptr('naptr.signed'));
  await say('CAA', dns.resolveCaa('www.signed'));
  await say('TXT', dns.resolveTxt('big.signed').then(a => a.map(x => x.join('')).sort()));
})();
