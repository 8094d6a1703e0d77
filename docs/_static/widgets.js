// require.js looks for anywidget, and embed-amd.js for its fonts, beside this file, whatever page they are loaded from
window.require.config({ baseUrl: new URL(".", document.currentScript.src).href });
