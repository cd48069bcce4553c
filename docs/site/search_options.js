// The search takes a leading "-" for "without this word", and options begin with two.
document.addEventListener(
  "input",
  ({ target }) => {
    if (target.matches(".md-search__input")) target.value = target.value.replace(/(^|\s)--?(?=\w)/g, "$1")
  },
  true,
)
