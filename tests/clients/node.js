// node.js NAME TYPE...: what Node's own resolver (c-ares) says
const dns = require('dns').promises;
(async () => {
  for (let words = process.argv.slice(2); words.length > 0; words = words.slice(2)) {
    const said = await dns.resolve(words[0], words[1]).then(a => a.map(x => JSON.stringify(x)).sort().join(' '), e => e.code);
    console.log(words[0], words[1], said);
  }
})();
