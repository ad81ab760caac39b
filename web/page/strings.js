// The words of the page, in its two languages.

const en = {
  skip: 'Skip to the question',
  tagline: 'Ask about a picture.',
  promise: 'It stays on this device: the model runs inside this page.',
  dropTitle: 'Drop a picture here, or choose one',
  dropHint: 'Pasting works, too',
  samplesTitle: 'Or try one of these',
  honest:
    'This page comes with a very small demonstration model, trained on drawn pictures: shapes, colours, counts, places, printed words and digits, bar charts. It knows nothing else of the world; with a Mini-InternVL model the same page answers about photographs.',
  newChat: 'New chat',
  settings: 'Settings',
  conversation: 'Conversation',
  pictures: 'Pictures',
  choose: 'Choose a picture',
  camera: 'Take a photo',
  question: 'Question',
  placeholder: 'Type your question',
  ask: 'Ask',
  stop: 'Stop',
  privacy: 'No picture and no word leaves this device.',
  close: 'Close',
  detail: 'Detail',
  detailQuick: 'Quick',
  detailBalanced: 'Balanced',
  detailFine: 'Fine',
  detailCost: 'up to {tiles} tiles, about {seconds} s for a large picture',
  detailCostOne: 'one look, about {seconds} s',
  detailUnknown: 'up to {tiles} tiles',
  answering: 'Answering',
  temperature: 'Freedom of wording',
  maxTokens: 'Longest answer, in tokens',
  threads: 'Threads (from the next load)',
  models: 'Models',
  modelsHint: 'Kept in this browser. Each is downloaded once.',
  modelCurrent: 'in use',
  modelPartly: '{have} of {all} here',
  modelNone: 'Nothing is stored yet.',
  fromDisk: 'Open GGUF files from this device',
  fromUrl: 'Address of a manifest or GGUF file on this site',
  load: 'Load',
  delete: 'Delete',
  machine: 'What runs here',
  language: 'Language',
  curtain: 'Let go to add the picture',
  remove: 'Remove {name}',
  you: 'You asked',
  answer: 'Answer',
  copy: 'Copy',
  copied: 'Copied',
  again: 'Ask again',
  edit: 'Edit',
  statusStart: 'Starting',
  statusReady: 'Ready',
  statusManifest: 'Looking for the model',
  statusWaiting: 'Another tab is downloading the model',
  statusNetwork: 'Downloading the model',
  statusStore: 'Reading the model',
  statusDisk: 'Reading the model',
  statusRetry: 'The connection broke, trying again',
  statusFailed: 'The model is not loaded',
  stageImage: 'Opening the picture',
  stageVision: 'Looking at the picture',
  stagePrefill: 'Reading the question',
  stageWait: 'Waiting for the model',
  stopped: 'Stopped.',
  lengthStop: 'The answer reached its longest length.',
  contextStop: 'The conversation is full; start a new chat.',
  figures: '{tokens}, {rate} per second, first after {first} s, {tiles}',
  token: '1 token',
  tokens: '{n} tokens',
  tile: '1 tile',
  tiles: '{n} tiles',
  tilesReused: 'picture known',
  retry: 'Try again',
  noQuestion: 'Type a question first.',
  notPicture: '{name} is not a picture.',
  tooMany: 'At most {n} pictures fit into one question.',
  build: 'Build',
  threadsNow: 'Threads',
  memory: 'Memory',
  modelNow: 'Model',
  stored: 'Stored',
  yes: 'yes',
  no: 'no',
  errIMAGE: 'The picture cannot be used',
  errNETWORK: 'The download did not work',
  errQUOTA: 'The storage is full',
  errSTORAGE: 'The browser’s storage does not work',
  errMEMORY: 'There is not enough memory',
  errWORKER: 'The engine stopped',
  errCONTEXT: 'The conversation is too long',
  errLIMIT: 'That is too large',
  errARGUMENT: 'That does not work',
  errUNSUPPORTED_BROWSER: 'This browser is too old',
  errOther: 'Something went wrong',
};

/** @type {typeof en} */
const zh = {
  skip: '跳到问题框',
  tagline: '看图提问。',
  promise: '图片不会离开这台设备：模型就在这个网页里运行。',
  dropTitle: '把图片拖到这里，或点击选择',
  dropHint: '也可以直接粘贴',
  samplesTitle: '或者试试这些图片',
  honest:
    '本页自带一个很小的演示模型，只用程序画的图训练过：形状、颜色、数量、位置、印刷的单词和数字、柱状图。它对世界别无所知；换上 Mini-InternVL 模型，同一个网页就能回答照片的问题。',
  newChat: '新对话',
  settings: '设置',
  conversation: '对话',
  pictures: '图片',
  choose: '选择图片',
  camera: '拍照',
  question: '问题',
  placeholder: '你想知道什么？',
  ask: '提问',
  stop: '停止',
  privacy: '图片和文字都不会离开这台设备。',
  close: '关闭',
  detail: '精细程度',
  detailQuick: '快速',
  detailBalanced: '均衡',
  detailFine: '精细',
  detailCost: '最多 {tiles} 块，大图约 {seconds} 秒',
  detailCostOne: '只看一遍，约 {seconds} 秒',
  detailUnknown: '最多 {tiles} 块',
  answering: '回答',
  temperature: '措辞的自由度',
  maxTokens: '回答的最大长度（词元）',
  threads: '线程数（下次加载时生效）',
  models: '模型',
  modelsHint: '保存在这个浏览器里，每个只下载一次。',
  modelCurrent: '使用中',
  modelPartly: '已有 {have}，共 {all}',
  modelNone: '还没有保存任何模型。',
  fromDisk: '打开本机的 GGUF 文件',
  fromUrl: '本站上清单或 GGUF 文件的地址',
  load: '加载',
  delete: '删除',
  machine: '运行情况',
  language: '语言',
  curtain: '松开即可添加图片',
  remove: '移除 {name}',
  you: '你的问题',
  answer: '回答',
  copy: '复制',
  copied: '已复制',
  again: '再问一次',
  edit: '修改',
  statusStart: '正在启动',
  statusReady: '就绪',
  statusManifest: '正在查找模型',
  statusWaiting: '另一个标签页正在下载模型',
  statusNetwork: '正在下载模型',
  statusStore: '正在读取模型',
  statusDisk: '正在读取模型',
  statusRetry: '连接中断，正在重试',
  statusFailed: '模型未加载',
  stageImage: '正在打开图片',
  stageVision: '正在看图',
  stagePrefill: '正在读题',
  stageWait: '等待模型就绪',
  stopped: '已停止。',
  lengthStop: '回答已到最大长度。',
  contextStop: '对话已满，请开始新对话。',
  figures: '{tokens}，每秒 {rate} 个，{first} 秒后开始，{tiles}',
  token: '1 个词元',
  tokens: '{n} 个词元',
  tile: '1 块',
  tiles: '{n} 块',
  tilesReused: '图片已看过',
  retry: '重试',
  noQuestion: '请先输入问题。',
  notPicture: '{name} 不是图片。',
  tooMany: '一个问题最多放 {n} 张图片。',
  build: '版本',
  threadsNow: '线程',
  memory: '内存',
  modelNow: '模型',
  stored: '已保存',
  yes: '是',
  no: '否',
  errIMAGE: '这张图片无法使用',
  errNETWORK: '下载失败',
  errQUOTA: '存储空间已满',
  errSTORAGE: '浏览器存储不可用',
  errMEMORY: '内存不足',
  errWORKER: '引擎停止了',
  errCONTEXT: '对话太长',
  errLIMIT: '太大了',
  errARGUMENT: '无法这样做',
  errUNSUPPORTED_BROWSER: '浏览器版本太旧',
  errOther: '出错了',
};

const all = { en, zh };

/** @typedef {keyof typeof en} StringName */
/** @typedef {keyof typeof all} Language */

/** @type {Language} */
let current = 'en';

/** The person's choice, else the browser's first language that there is. @returns {Language} */
export function preferred(/** @type {string | undefined} */ chosen) {
  for (const tag of [chosen, ...(navigator.languages ?? [navigator.language])]) {
    const name = /** @type {Language} */ (String(tag ?? '').slice(0, 2));
    if (name in all) return name;
  }
  return 'en';
}

/** @param {Language} language */
export function use(language) {
  current = language;
  document.documentElement.lang = language === 'zh' ? 'zh-Hans' : 'en';
  const text = /** @type {Record<string, string>} */ (all[current]);
  for (const [attribute, set] of /** @type {const} */ ([
    ['t', (/** @type {HTMLElement} */ e, /** @type {string} */ v) => (e.textContent = v)],
    [
      'tLabel',
      (/** @type {HTMLElement} */ e, /** @type {string} */ v) => e.setAttribute('aria-label', v),
    ],
    ['tTitle', (/** @type {HTMLElement} */ e, /** @type {string} */ v) => (e.title = v)],
    [
      'tPlaceholder',
      (/** @type {HTMLElement} */ e, /** @type {string} */ v) => e.setAttribute('placeholder', v),
    ],
  ])) {
    const selector = `[data-${attribute.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}]`;
    for (const element of document.querySelectorAll(selector)) {
      const html = /** @type {HTMLElement} */ (element);
      set(html, text[html.dataset[attribute] ?? ''] ?? '');
    }
  }
}

export const language = () => current;

/**
 * @param {StringName} name
 * @param {Record<string, string | number>} [values]
 */
export function t(name, values = {}) {
  return all[current][name].replace(/\{(\w+)\}/g, (_, key) => String(values[key] ?? ''));
}
