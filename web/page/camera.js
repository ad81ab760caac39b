// A photo by the device's camera. Phones have a camera app behind a file input; elsewhere the page shows what the camera
// sees and takes a picture of it. The camera is off again as soon as the dialog closes.
import { addFiles } from './attachments.js';
import { $ } from './dom.js';
import { showNotice } from './errors.js';
import { t } from './strings.js';

/** @type {MediaStream | null} */
let stream = null;

function off() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  /** @type {HTMLVideoElement} */ ($('viewfinder')).srcObject = null;
}

async function open() {
  const dialog = /** @type {HTMLDialogElement} */ ($('camera-dialog'));
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: 'environment', width: { ideal: 1920 }, height: { ideal: 1440 } },
    });
  } catch (error) {
    const { name } = /** @type {Error} */ (error);
    const message = name === 'NotAllowedError' ? t('cameraRefused') : t('cameraMissing');
    showNotice({ code: 'ARGUMENT', message });
    return;
  }
  const video = /** @type {HTMLVideoElement} */ ($('viewfinder'));
  video.srcObject = stream;
  dialog.showModal();
  await video.play().catch(() => {});
}

async function shoot() {
  const video = /** @type {HTMLVideoElement} */ ($('viewfinder'));
  const canvas = document.createElement('canvas');
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  if (!canvas.width) return; // no picture has come yet
  canvas.getContext('2d')?.drawImage(video, 0, 0);
  const blob = await new Promise((/** @type {(b: Blob | null) => void} */ done) =>
    canvas.toBlob(done, 'image/jpeg', 0.92),
  );
  /** @type {HTMLDialogElement} */ ($('camera-dialog')).close();
  if (blob) addFiles([new File([blob], t('photo'), { type: 'image/jpeg' })]);
}

export function wireCamera() {
  const button = $('open-camera');
  button.hidden = !navigator.mediaDevices?.getUserMedia;
  button.addEventListener('click', () => void open());
  $('shoot').addEventListener('click', () => void shoot());
  $('camera-dialog').addEventListener('close', off);
}
