import { PocketVL } from 'pocketvl';

const out = document.querySelector('output');
const vl = await PocketVL.load('models/demo/manifest.json', {
  onProgress: (p) => (out.textContent = p.stage),
});
out.textContent = 'Choose a picture.';
document.querySelector('input').onchange = async ({ target }) => {
  const question = { type: 'text', text: 'How many shapes are there?' };
  const content = [{ type: 'image', image: target.files[0] }, question];
  out.textContent = '';
  for await (const piece of vl.chat([{ role: 'user', content }])) out.textContent += piece;
};
