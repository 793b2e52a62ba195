// The menu of versions. ../versions.js, which the build writes for all of them, has said which versions and pages exist;
// where it is missing, as in a folder that Sphinx alone has built, there is no menu.
(() => {
  const versions = window.BRIDGE_VERSIONS;
  const root = new URL(document.documentElement.dataset.content_root, location.href);
  const here = root.pathname.split("/").at(-2);
  if (!versions?.some((version) => version.name === here)) return;
  const box = document.querySelector(".versions");
  const menu = box.querySelector("select");
  for (const { name, title } of versions) menu.add(new Option(title, name, false, name === here));
  menu.addEventListener("change", () => {
    const page = location.pathname.slice(root.pathname.length) || "index.html";
    const { name, pages } = versions.find((version) => version.name === menu.value);
    location.href = new URL(`../${name}/${pages.includes(page) ? page + location.hash : "index.html"}`, root).href;
  });
  box.hidden = false;
})();
