/** The page's entry. */
import { render } from 'preact'

const root = document.getElementById('app')
if (root) render(<h1>kodo</h1>, root)
