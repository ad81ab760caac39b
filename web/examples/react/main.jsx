import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { PictureChat } from './PictureChat.jsx';

createRoot(document.body).render(
  <StrictMode>
    <PictureChat model="models/demo/manifest.json" />
  </StrictMode>,
);
