// A React component: pick a picture, ask, watch the answer being written, stop it.
import { useEffect, useRef, useState } from 'react';
import { PocketVL } from 'pocketvl';

/** @param {{model: string}} props model: the address of a manifest.json or of a GGUF file */
export function PictureChat({ model }) {
  const engine = useRef(/** @type {PocketVL | null} */ (null));
  const running = useRef(/** @type {AbortController | null} */ (null));
  const [status, setStatus] = useState('Loading the model');
  const [picture, setPicture] = useState(/** @type {File | null} */ (null));
  const [answer, setAnswer] = useState('');

  useEffect(() => {
    const leaving = new AbortController();
    const { signal } = leaving;
    PocketVL.load(model, {
      signal,
      onProgress: ({ loaded, total }) =>
        setStatus(`Loading the model, ${Math.floor((100 * loaded) / (total || 1))} %`),
    }).then(
      (vl) => {
        if (signal.aborted) return vl.dispose();
        engine.current = vl;
        setStatus('');
      },
      (error) => signal.aborted || setStatus(error.message),
    );
    return () => {
      leaving.abort();
      engine.current?.dispose();
      engine.current = null;
    };
  }, [model]);

  /** @param {import('react').FormEvent<HTMLFormElement>} event */
  async function ask(event) {
    event.preventDefault();
    const text = String(new FormData(event.currentTarget).get('question'));
    if (!engine.current || !picture) return;
    running.current = new AbortController();
    setStatus('Looking');
    setAnswer('');
    try {
      /** @type {import('pocketvl').Message} */
      const message = {
        role: 'user',
        content: [
          { type: 'image', image: picture },
          { type: 'text', text },
        ],
      };
      const { signal } = running.current;
      for await (const piece of engine.current.chat([message], { maxTokens: 128, signal })) {
        setAnswer((before) => before + piece);
      }
      setStatus('');
    } catch (error) {
      setStatus(/** @type {Error} */ (error).message);
    } finally {
      running.current = null;
    }
  }

  return (
    <form onSubmit={ask}>
      <input
        type="file"
        accept="image/*"
        aria-label="Picture"
        onChange={({ target }) => setPicture(target.files?.[0] ?? null)}
      />
      <input name="question" aria-label="Question" defaultValue="How many shapes are there?" />
      <button disabled={status !== '' || !picture}>Ask</button>
      <button type="button" onClick={() => running.current?.abort()}>
        Stop
      </button>
      <p role="status">{status}</p>
      <p aria-live="polite">{answer}</p>
    </form>
  );
}
