// Copying is the only thing that needs a script; every page works without it.
for (const button of document.querySelectorAll("button.copy")) {
  if (!navigator.clipboard) {
    button.hidden = true;
    continue;
  }
  const words = button.textContent;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = words; }, 2000);
  });
}
